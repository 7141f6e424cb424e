"""What every part of the compiler stands on: places in source text, and errors as data.

`span` says where something is written, `diagnostic` says what is wrong there and prints it,
`catalogue` explains each error code at length.
"""
