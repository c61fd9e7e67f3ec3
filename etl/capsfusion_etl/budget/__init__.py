"""What paid work costs, and the caps that it must not exceed.

`budget` is the driver's side: what is left, what each slice may spend, what it took. `metered` is the task's side: it
reserves before a request and settles after it. `journal` logs requests and answers, so that a killed run pays for
nothing twice; `spend` writes the table `spend`; `forecast` estimates the cost before the first request.
"""
