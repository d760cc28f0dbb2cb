-- A staff member's ending of a stuck order is evidence, too.
ALTER TYPE leaf_kind ADD VALUE 'order_closing';
