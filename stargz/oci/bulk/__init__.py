"""Whole registries converted: what there is, what was done before, and the report."""

from stargz.oci.bulk.report import BulkReport
from stargz.oci.bulk.run import bulk

__all__ = ["BulkReport", "bulk"]
