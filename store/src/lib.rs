//! The task's lifecycle: pure rules, and the only SQL of TaskMaster.
