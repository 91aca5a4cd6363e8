"""The platform's return codes as data: its text, and what each means for a call of ours.

Knows the table only; refuses to decide what follows. Classes:
`ok` it happened; `ambiguous` it may have happened; `transient` it did not, try later;
`configuration` it did not, and an operator must act; `data` it did not, our values are wrong;
`business` it did not, and the platform's rules forbid it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.outcomes import Class

OK: Final = 0
PERMISSIONS: Final = 8
NOT_FOUND: Final = 13
EXISTS: Final = frozenset({3004, 3013})  # an account with this login is there already

RETCODES: Final[Mapping[int, tuple[str, Class]]] = {
    0: ("Done", "ok"),
    1: ("OK/None", "ok"),
    2: ("Common error", "ambiguous"),
    3: ("Invalid parameters", "data"),
    4: ("Invalid data", "data"),
    5: ("Disk error", "ambiguous"),
    6: ("Memory error", "ambiguous"),
    7: ("Network error", "ambiguous"),
    8: ("Not enough permissions", "configuration"),
    9: ("Operation timeout", "ambiguous"),
    10: ("No connection", "ambiguous"),
    11: ("Service is not available", "transient"),
    12: ("Too frequent requests", "transient"),
    13: ("Not found", "data"),
    14: ("Partial error", "ambiguous"),
    15: ("Server shutdown in progress", "ambiguous"),
    16: ("Operation was canceled", "ambiguous"),
    17: ("Duplicate attempt", "ambiguous"),  # whether the first one was done, it does not say
    1000: ("Invalid terminal type", "configuration"),
    1001: ("Invalid account", "configuration"),
    1002: ("Account disabled", "configuration"),
    1003: ("Advanced authorization", "configuration"),
    1004: ("Certificate required", "configuration"),
    1005: ("Invalid certificate", "configuration"),
    1006: ("Not confirmed certificate", "configuration"),
    1007: ("Attempt to connect to non-access server", "configuration"),
    1008: ("Invalid or fake server", "configuration"),
    1010: ("Old version", "configuration"),
    1011: ("Account doesn't have manager config", "configuration"),
    1012: ("IP address unallowed for manager", "configuration"),
    1013: ("Group is not initialized, server restart needed", "configuration"),
    1018: ("Server is busy", "transient"),
    1020: ("Unknown account", "configuration"),
    1024: ("Connection type is not permitted for manager", "configuration"),
    1026: ("Master password must be changed", "configuration"),
    1027: ("OTP invalid", "configuration"),
    1028: ("OTP secret needed", "configuration"),
    1034: ("Account API disabled", "configuration"),
    3001: ("Last admin account cannot be deleted", "business"),
    3002: ("Login range exhausted", "configuration"),
    3003: ("Login reserved at another server", "configuration"),
    3004: ("Account already exists", "data"),
    3005: ("Attempt of self-deletion", "business"),
    3006: ("Invalid account password", "data"),
    3007: ("User limit reached", "configuration"),
    3008: ("Account has open trades", "business"),
    3009: ("Attempt to move account to different server", "business"),
    3010: ("Attempt to move account to group with different currency", "business"),
    3011: ("Account balance import error", "data"),
    3012: ("Imported account has invalid group", "data"),
    3013: ("Account already exist", "data"),
    3019: ("API users limit reached", "configuration"),
    4001: ("Order or deal limit reached", "business"),
    4002: ("Order already exists", "data"),
    4003: ("Order range exhausted", "configuration"),
    4004: ("Deal range exhausted", "configuration"),
    4005: ("Money limit reached", "business"),
    4006: ("Deal already exists", "data"),
    4007: ("Order ticket reserved at another server", "configuration"),
    4008: ("Deal ticket reserved at another server", "configuration"),
    10001: ("Request on the way", "ambiguous"),
    10002: ("Request accepted", "ambiguous"),
    10003: ("Request processed", "ambiguous"),
    10006: ("Request rejected", "business"),
    10007: ("Request canceled", "business"),
    10008: ("Order placed", "ok"),
    10009: ("Request executed", "ok"),
    10010: ("Request executed partially", "ambiguous"),
    10011: ("Request error", "ambiguous"),
    10012: ("Request timeout", "ambiguous"),
    10013: ("Invalid request", "data"),
    10017: ("Trade disabled", "business"),
    10018: ("Market closed", "business"),
    10019: ("No money", "business"),
    10024: ("Too many trade requests", "transient"),
    10025: ("No changes", "ok"),
    10028: ("Order locked by dealer", "transient"),
    10031: ("No connection", "ambiguous"),
    12000: ("Not implemented", "configuration"),
    12001: ("Operation must be performed on main server", "configuration"),
    12002: ("Command doesn't supported", "configuration"),
    12003: ("Operation canceled due possible deadlock", "transient"),
    12004: ("Operation on locked entity", "transient"),
}


def class_of(code: int) -> Class:
    """What a code means for a call that may change something; a code we do not know is ambiguous.

    2000-2020 are the platform's configuration errors, whatever their number.
    """
    if code in RETCODES:
        return RETCODES[code][1]
    return "configuration" if 2000 <= code <= 2020 else "ambiguous"


def text_of(code: int) -> str:
    """The platform's own words for a code."""
    return RETCODES[code][0] if code in RETCODES else "Unknown code"
