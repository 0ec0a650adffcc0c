-- Lanes are never deleted, and their ids come from the table itself: the check of each task cost a third of its insertion, and its row
-- lock made concurrent insertions wait for one another.
alter table tasks drop constraint tasks_lane_fkey;

-- Few tasks are being cancelled at any time; claims and starts do not touch the column, and stay HOT updates.
create index tasks_cancelling on tasks (id) where cancel_requested_at is not null;
