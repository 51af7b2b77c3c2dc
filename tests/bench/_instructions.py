def count(bench, lab):
    pass
