"""A whole network in one process, and everything that can go wrong between its parties.

Agencies, the reference network and the registry are the product's own code: ledgers, platforms, workers,
acquirers and doors as `renkei serve` puts them together. Three things are put in their place:

- Time and order (`clockwork`). trio runs on a clock that jumps to the next deadline, its tasks take their
  turns by a generator of the run, worker threads are plain calls, and random bytes are drawn by the same
  generator. So a seed determines a run: `Clockwork.trace` digests every message on a line, every commit and
  every fault with its virtual time, and is the same whenever and wherever the seed is run. (What HPKE and
  ECDSA draw inside the cryptographic library stays chance; no decision depends on it, and no trace holds it.)
- Lines (`lines`). A request goes to the handler of the other party's door, in that party's own tasks, as
  packets would: late, lost, twice, overtaking others, or not at all while a partition lasts. The answer takes
  its own way back, and may be lost after the other side has acted.
- Disks (`disks`). A store keeps what `append` made durable, and fails now and then before or after that;
  vaults and projections are files in memory. A process that is killed loses all else: its tasks end wherever
  they are (also between a commit and whoever waited for it), and it opens again from its stores, now and then
  with its projections thrown away.

Each party has a clock of its own, some minutes before or behind the others. Idle waiting is stretched
(`world.STRETCHED`): a long poll of twenty seconds would be asked a million times in three quiet days.

`workload` is what people do over the days: business systems register residents and records, order inquiries
of every kind (one person, households, many together, later, outside the law, about held and unknown people),
withdraw some, and send again what was not acknowledged; officers hold, free, release, limit and refuse;
agencies notify each other; people move away and come back, so that link codes are retired and acquired anew.
It keeps what was acknowledged. Then the faults end, everything is brought up and left to settle, and `checks`
compares the ledgers of all parties with each other, with the table of the law as it reads it itself, and with
what was acknowledged. A process that ends by itself, a request whose handler fails, and work that goes round
and round are violations as soon as they happen. A violation names the seed, the time, the rule and ids;
nothing of a person.

A process runs one seed at a time; `command` spreads seeds over processes, whose hashing of texts is fixed
(PYTHONHASHSEED=0), because sets of texts have an order that a seed must determine, too.
"""
