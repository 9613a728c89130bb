"""Arrays in a file of the user's, `.npz` or Parquet, as a data set in three splits."""
