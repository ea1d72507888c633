module vmmr-example

go 1.24

require (
	google.golang.org/grpc v1.84.0
	google.golang.org/protobuf v1.36.11
)
