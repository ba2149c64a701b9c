"""Benchmarks: `python -m bench [QUESTION ...] [--quick] [--out DIR]`, from the root of the source tree.

One script a question. The head of each says what the question is, what is timed and what "a call" is; that
text stands above the figures in the results, too.

    hit           what does a hit cost, beside functools.lru_cache and the peers?
    miss          what does a miss cost beyond the computation itself, by size?
    core          the same in C alone (core.c), and resets of up to ten million entries
    index         look-ups in C in a nearly full index, and among ten million entries
    instructions  the same in instructions, which no other load on the machine disturbs
    stampede      64 processes ask for a cold key: how often is it computed, how soon do all have it?
    stall         1,000 tasks ask at once in each process: for how long does an event loop stand still?
    takeover      the process that computes is killed: how soon does a waiter compute in its place?
    reset         what does a reset cost, by the number of entries?
    scaling       how many hits a second do 1, 2, 4, 8 processes and threads get?
    mixed         how many hits a second are there while another process stores?
    memory        how much memory does an entry take beside its key and value?
    interference  what does a hit cost while another process publishes or resets without pause?

    cluster.*     clusters: see cluster/

    headline      not a question: the targets beside what the others measured

What they share:

    peers/        what users would pick instead, each behind the same protocol
    values        what hits are asked for
    common        a namespace of its own for each run, how much room there is; what a result consists of
    timing        batches of calls, timed in interleaved rounds
    procs         processes that are started, asked and ended
    prepare       installs the peers, as far as possible
    guard         instructions of a hit, compared with the committed ones
    machine       what the figures were taken on
    report        results as Markdown and JSON
    plots         results as SVG, where matplotlib is installed (the extra coopshm[bench])

To compare with another library, write its adapter in peers/: contenders are measured in the same rounds. No
script passes judgement on a time; one fails only when what it measured was not what it meant to
measure.
"""
