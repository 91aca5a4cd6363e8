-- Adjustments: what moves money because people say so is in the books with the approval of two of them, or not at all.

ALTER TABLE ledger.entry
    ADD COLUMN approval text COLLATE "C", -- the question that allowed it
    ADD COLUMN maker    text COLLATE "C", -- who asked
    ADD COLUMN checker  text COLLATE "C"; -- who agreed
-- Kinds 90 to 99 are by approval only, and no other kind has one. It is not asked of the rows that stand, of which
-- none is an adjustment: that would hold up every writer.
ALTER TABLE ledger.entry ADD CONSTRAINT entry_approved CHECK (
    (kind BETWEEN 90 AND 99) = coalesce(approval <> '' AND maker <> '' AND checker <> '' AND maker <> checker, false)
) NOT VALID;
