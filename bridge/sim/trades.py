"""A deal of the simulated platform in full, and the row that the wire shows of it.

Knows every field of a deal's row, in the order of a real dump, each scalar a JSON string. Refuses
to know how deals come about (`dealing.py`) and where they are kept (`tape.py`).
"""

from __future__ import annotations

from typing import Final

import msgspec

LOT: Final = 100_000_000  # volumes are 1e-8 lots, as VolumeExt is
EXT_PER_VOLUME: Final = 10_000  # the older field counts 1e-4 lots: what is finer is cut off
BUY, SELL, BALANCE, CREDIT = 0, 1, 2, 3  # a deal's Action; BALANCE and above move money only
IN, OUT, INOUT, OUT_BY = 0, 1, 2, 3  # a deal's Entry
MANAGER_REASON: Final = 2


class Trade(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False, forbid_unknown_fields=True
):
    """Any deal as it is now: a later record of its ticket replaces it.

    digits, money_digits   decimals of the symbol's price, and of the account's currency
    volume, closed         1e-8 lots; how much of the volume closed a position
    price, position_price  in points of `digits`; the latter is what the closed position opened at
    profit                 and commission, storage, fee: minor units of the account's currency
    rate_e8                from the symbol's currency of profit to the account's, 1e-8
    wall_ms, utc_ms        when, by the server's wall clock and in truth
    edits                  how often it was touched after it was made; flags: ModifyFlags
    transfer               it came by trade/balance; late: it was made after its own time
    raw                    fields of the row that shall say something else
    """

    ticket: int
    login: int
    action: int
    wall_ms: int
    utc_ms: int
    money_digits: int = 2
    entry: int = IN
    reason: int = 0
    symbol: str = ""
    digits: int = 0
    contract: int = 0
    order: int = 0
    position: int = 0
    volume: int = 0
    closed: int = 0
    price: int = 0
    position_price: int = 0
    profit: int = 0
    commission: int = 0
    storage: int = 0
    fee: int = 0
    rate_e8: int = 0
    comment: str = ""
    dealer: int = 0
    flags: int = 0
    edits: int = 0
    transfer: bool = False
    late: bool = False
    raw: tuple[tuple[str, str], ...] = ()

    @property
    def moved(self) -> int:
        """What the deal did to the account's money, minor units."""
        return self.profit + self.commission + self.storage + self.fee


def row(trade: Trade) -> msgspec.Raw:
    """The deal as `deal/get` answers it, encoded."""
    d, m = trade.digits, trade.money_digits
    profit, price = decimal(trade.profit, m), decimal(trade.price, d)
    text = (
        f'{{"Deal":"{trade.ticket}","ExternalID":"","Login":"{trade.login}",'
        f'"Dealer":"{trade.dealer}","Order":"{trade.order}","Action":"{trade.action}",'
        f'"Entry":"{trade.entry}","Reason":"{trade.reason}","Digits":"{d}",'
        f'"DigitsCurrency":"{m}","ContractSize":"{trade.contract}.00",'
        f'"Time":"{trade.wall_ms // 1000}","TimeMsc":"{trade.wall_ms}",'
        f'"Symbol":{_quoted(trade.symbol)},"Price":"{price}",'
        f'"Volume":"{trade.volume // EXT_PER_VOLUME}","VolumeExt":"{trade.volume}",'
        f'"Profit":"{profit}","Storage":"{decimal(trade.storage, m)}",'
        f'"Commission":"{decimal(trade.commission, m)}","Fee":"{decimal(trade.fee, m)}",'
        f'"RateProfit":"{decimal(trade.rate_e8, 8)}","RateMargin":"0.00000000","ExpertID":"0",'
        f'"PositionID":"{trade.position}","Comment":{_quoted(trade.comment)},'
        f'"ProfitRaw":"{profit}","PricePosition":"{decimal(trade.position_price, d)}",'
        f'"PriceSL":"{decimal(0, d)}","PriceTP":"{decimal(0, d)}",'
        f'"VolumeClosed":"{trade.closed // EXT_PER_VOLUME}","VolumeClosedExt":"{trade.closed}",'
        f'"TickValue":"0.00000000","TickSize":"0.00000000","Flags":"0","Gateway":"",'
        f'"PriceGateway":"{decimal(0, d)}","ModifyFlags":"{trade.flags}","Value":"0.00",'
        f'"MarketBid":"{price}","MarketAsk":"{price}","MarketLast":"{decimal(0, d)}"}}'
    )
    if trade.raw:
        text = msgspec.json.encode(msgspec.json.decode(text) | dict(trade.raw)).decode()
    return msgspec.Raw(text.encode())


def decimal(points: int, digits: int) -> str:
    """A number of points as the wire writes it, all its decimals shown: `-0.05`, `100.00`, `7`."""
    if not digits:
        return str(points)
    text = f"{abs(points):0{digits + 1}d}"
    return f"{'-' if points < 0 else ''}{text[:-digits]}.{text[-digits:]}"


def _quoted(text: str) -> str:
    """A JSON string; most are empty or plain words."""
    return f'"{text}"' if text.isalnum() or not text else msgspec.json.encode(text).decode()
