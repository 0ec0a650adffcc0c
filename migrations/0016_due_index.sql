-- The index of what is due is for those statements only that ask for it by its predicate, which holds for every task. It also has the
-- ids, and while a table is believed to be empty the planner takes a walk over the whole of any index for as cheap as a look into
-- the primary key: a statement that records outcomes walked over millions of entries for each task then.
drop index tasks_due;
create index tasks_due on tasks (lane, priority, run_at, id) where priority >= 0;
