"""What is learned: a task has batches, a loss and a measure; the loop knows no other difference."""
