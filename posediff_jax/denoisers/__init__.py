"""Networks: linen modules, one file per paper over shared layers."""
