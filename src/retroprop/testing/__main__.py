"""`python -m retroprop.testing stub` writes the types of the registry."""

import sys

from retroprop.testing.stub import STUB, stub_text

if sys.argv[1:] == ["stub"]:
    STUB.write_text(stub_text(), encoding="utf-8")
else:
    sys.exit("usage: python -m retroprop.testing stub")
