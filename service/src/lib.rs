//! How any TaskMaster process is configured, served, observed and stopped.
