"""Who may do what, and the trace it leaves: roles, approvals, audit, items, the rulebook.

It knows actors, duties and reasons. It refuses to know what a command means for money: that
stays with its flow.
"""
