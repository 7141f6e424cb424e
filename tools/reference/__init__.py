"""The reference pages, made from what they describe: the standard library, the records' schema, the error catalogue."""
