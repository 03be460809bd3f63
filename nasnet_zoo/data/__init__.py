"""Pictures, labels, predictions of many pictures, and labelled data sets."""
