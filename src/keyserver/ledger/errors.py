"""What the ledger refuses."""

from keyserver.kit.problems import Conflict


class ReferenceReused(Conflict):
    code = "reference_reused"
    error = "This reference_id stands for an entry with other content"
