# SPDX-License-Identifier: Apache-2.0
"""The commonest digit sums of large powers: dask_bag.py processes|distributed NUMBERS."""

import sys

import dask.bag


def digit_sum(number):
    return sum(map(int, str(number**64)))


def commonest(numbers):
    bag = dask.bag.from_sequence(range(numbers), npartitions=8)
    return sorted(bag.map(digit_sum).frequencies().compute(), key=lambda pair: (-pair[1], pair))[:5]


if __name__ == "__main__":
    how, numbers = sys.argv[1], int(sys.argv[2])
    if how == "processes":
        with dask.config.set(scheduler="processes", num_workers=2):
            print(commonest(numbers))
    else:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                local_directory="scratch",
            ) as cluster,
            Client(cluster),
        ):
            print(commonest(numbers))
