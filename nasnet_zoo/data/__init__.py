"""Pictures, labels and predictions, and labelled data sets."""
