// A no-op unary server as its makers advise: C++ gRPC, callback API, one completion per call. `bench-grpcpp` prints its port and serves grpc.health.v1.Health/Check without TLS.
#include <csignal>
#include <cstdio>
#include <memory>

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include "grpc/health/v1/health.grpc.pb.h"

namespace {

class Health final : public grpc::health::v1::Health::CallbackService {
    grpc::ServerUnaryReactor *Check(grpc::CallbackServerContext *context, const grpc::health::v1::HealthCheckRequest *,
                                    grpc::health::v1::HealthCheckResponse *response) override
    {
        response->set_status(grpc::health::v1::HealthCheckResponse::SERVING);
        grpc::ServerUnaryReactor *reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }
};

}  // namespace

int main()
{
    Health health;
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&health);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (!server)
        return 1;
    std::printf("%d\n", port);
    std::fflush(stdout);
    pause();
    return 0;
}
