"""Makes one call with gRPC's own Python client and prints the name of the status it got.

Usage: grpc_status.py ADDRESS
"""

import sys

import grpc


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        call = channel.unary_unary("/shop.Cart/Get")
        try:
            call(b"", timeout=20)
            print("OK")
        except grpc.RpcError as error:
            print(error.code().name)


main()
