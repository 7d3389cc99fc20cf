"""Every policy once more, in plain lists and as slowly as it reads: what the tensor rules are compared with."""

from itertools import combinations


def by_score(sinks, recent):
    """Lowest score among all but the first `sinks` and the last `recent`; the oldest of equals."""

    def rule(kept, score):
        candidates = range(sinks, len(kept) - recent)
        return min(candidates, key=lambda i: (score[kept[i]], i))

    return rule


def at_rank(r):
    return lambda kept, score: r


def simulate(rows, rule, capacity, *, decay=1.0, last_row=False):
    """Visible tokens of each query, as sets; `rows[t][j]` is what query t pays to token j when it sees everything."""
    kept, score, out = [], {}, []
    for t, row in enumerate(rows):
        kept.append(t)
        score[t] = 0.0
        out.append(set(kept))
        seen = sum(row[j] for j in kept)
        total = sum(row[: t + 1])
        for j in kept:
            p = row[j] / seen * total
            score[j] = p if last_row else score[j] * decay + p
        if len(kept) > capacity:
            del score[kept.pop(rule(kept, score))]
    return out


def official(rows, heavy, recent):
    """utils_hh, token by token: the band of the next query covers that query; scores outside band and heavies are lost."""
    score, alive, out = [], set(), []
    for t, row in enumerate(rows):
        alive = alive | {t}
        out.append(set(alive))
        score.append(0.0)
        seen = sum(row[j] for j in alive)
        for j in alive:
            score[j] += row[j] / seen
        n = t + 1
        if n <= heavy + recent:
            continue
        candidates = sorted(range(n - recent), key=lambda j: (-score[j], -j))[:heavy]
        band = set(range(n + 1 - recent, n))
        score = [s if j in candidates or j >= n - recent else 0.0 for j, s in enumerate(score)]
        alive = set(candidates) | band
    return out


def best(rows, k, recent=0):
    """The offline optimum by trying every plan, what follows a set of held tokens once; for a few tokens only."""
    known = {}

    def go(t, held):
        if t == len(rows):
            return 0.0
        if (t, held) not in known:
            gained = sum(rows[t][j] for j in held)
            known[t, held] = gained + max(go(t + 1, after) for after in choices(t, held))
        return known[t, held]

    def choices(t, held):
        """What may be held at row t + 1: at most k of what was held and the newcomer, the protected among them."""
        pool = sorted(held | {t})
        must = {j for j in pool if t + 1 - j <= recent}
        every = (frozenset(c) for size in range(k + 1) for c in combinations(pool, size))
        return [c for c in every if must <= c]

    return go(0, frozenset())
