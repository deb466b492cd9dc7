"""Two ways to ask OmenDB the same thing answer the same."""

from metamorphic import campaign

CI, LONG = 150, 5_000


def test_two_ways_to_ask_the_same_answer_the_same(bench, seed, full):
    breaches = campaign(bench, seed, LONG if full else CI)
    assert not breaches, f"{len(breaches)} breaches (OMENDB_DIFF_SEED={seed}):\n\n" + "\n\n".join(
        f"## {where}\n{breach.report()}" for where, breach in breaches
    )
