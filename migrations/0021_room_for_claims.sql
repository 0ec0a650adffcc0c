-- A claim writes each task anew, with its worker, before the old row can go: with three tenths of a page left free most of a batch
-- went to other pages, with new entries in both indexes and dead ones left in the way. Pages that are written from now on have room
-- for all of theirs.
alter table tasks set (fillfactor = 42);
