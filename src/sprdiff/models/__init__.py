"""The networks of SPRDiff in torch (extra ``train``): one class per part, under the paper's name."""
