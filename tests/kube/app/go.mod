module anyam.dev/tests/kube/app

go 1.26.0
