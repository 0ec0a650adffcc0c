SELECT ((SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches)
      + (SELECT count(*) FROM awa.done_entries)
      + (SELECT coalesce(sum(pruned_completed_count), 0) FROM awa.queue_terminal_rollups))::bigint
