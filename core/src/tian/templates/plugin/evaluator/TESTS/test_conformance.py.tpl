"""@@name@@ keeps the contract of role evaluator; `tian show evaluator` prints it."""

from tian.testing import conformance

DATA = [(f"{a} + 1", str(a + 1)) for a in range(12)] + [("capital of France", "Paris")]


def subject(question):
    """Right for small numbers, and without capitals."""
    return "paris" if "capital" in question else str(int(question.split()[0]) % 8 + 1)


Test@@Class@@ = conformance.evaluator(
    "@@name@@/@@name@@",
    options=[{}, {"case_matters": True, "resamples": 200}],
    bad_options=[{"resamples": 0}],
    data=DATA,
    subject=subject,
    bad_data=[("a question without an answer",)],
)
