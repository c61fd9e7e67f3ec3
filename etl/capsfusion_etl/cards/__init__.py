"""Cards of data sets: what is in them, where it comes from and how it was made, for people and for machines."""
