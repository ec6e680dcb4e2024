"""How the hub is: one verdict, computed from what has made headway and what waits, never from a process being alive.

`facts` says what a look found, `looking` looks at the ledger, the log and the boards, `verdict` judges (pure), `words` says it,
`watch` keeps looking in a thread of a program.
"""
