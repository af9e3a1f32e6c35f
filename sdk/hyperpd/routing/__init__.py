"""Which worker decodes a request, whether another prefills it, and why: small and pure.

No clock (`now_s` is passed in, of any monotonic clock), no I/O, no asyncio: the gateway and the simulator run
this same code. A request goes: `Router.choose` → `Flight`, which is told what happens to it.

    request.py     what a request looks like from here; blocks.py: tokens → chain of block hashes
    worker.py      one worker's load; fleet.py: the workers of one role, who may be picked, which pairs are open
    prefix.py      which worker has which prefix cached, guessed from what was sent; events.py: known from KV events
    policies.py    which worker: round_robin, least_tokens, marginal_slo_cost; order.py finds the best of many
    deciders.py    does a remote prefill pay: always, never, uncached_tokens, predicted_cost
    knowledge.py   what is learnt: rates, step times, output lengths, bandwidths; calibration.py: what they start from
    router.py      one decision; flight.py: a request under way
"""
