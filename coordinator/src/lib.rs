//! The coordinator: worker registry, poller, dispatch, outcomes, rescue.
