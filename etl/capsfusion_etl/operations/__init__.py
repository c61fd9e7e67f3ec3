"""What people do with a lake beside running it.

`plan` shows what a run would do, `explain` tells the story of a row, `takedown` removes rows everywhere, `sql`
queries the tables, `udfs` are the SQL functions. Each is behind one command of `cli`.
"""
