"""Training from Parquet files that do not fit into memory, streamed with Ray Data.

An epoch is cut into lanes (`data.stream.lanes`), which are read in parallel. Rows of a lane pass
through a shuffle buffer, one window of rows after the other, and every batch takes rows from all
lanes. `epoch_order.py` computes this order; the other modules carry it out.
"""
