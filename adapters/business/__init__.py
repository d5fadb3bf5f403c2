"""Individual business connection (個別連携業務接続): files that business systems give and take.

`files` reads and writes the CSV files (residents, staff, inquiries), `income` the fixed-length file, `lists`
writes what goes back (results and error list). `text`, `form` and `output` are what they share.
"""
