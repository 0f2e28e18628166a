/* The table of RPC methods. */
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"
#include "shell/gateway.h"

#define METHOD(service_, name_, request_, response_, handler_, cancel_)                                                \
    (&(const struct hp_rpc_method){                                                                                    \
        .service = "harpoon.v1." service_,                                                                             \
        .name = name_,                                                                                                 \
        .request = &harpoon__v1__##request_##__descriptor,                                                             \
        .response = &harpoon__v1__##response_##__descriptor,                                                           \
        .on_message = handler_,                                                                                        \
        .on_cancel = cancel_,                                                                                          \
    })
#define CHANGE(service_, name_, request_, response_)                                                                   \
    METHOD(service_, name_, request_, response_, gw_on_change, gw_on_change_cancel)
#define READ(service_, name_, request_, response_, handler_)                                                           \
    METHOD(service_, name_, request_, response_, handler_, gw_on_read_cancel)

const struct hp_rpc_method *const gw_methods[] = {
    CHANGE("ContainerService", "CreateContainer", create_container_request, operation),
    READ("ContainerService", "GetContainer", get_container_request, container, gw_on_get_container),
    READ("ContainerService", "ListContainers", list_containers_request, list_containers_response,
         gw_on_list_containers),
    CHANGE("ContainerService", "ResizeContainer", resize_container_request, operation),
    CHANGE("ContainerService", "UpdateContainer", update_container_request, operation),
    CHANGE("ContainerService", "StartContainer", start_container_request, operation),
    CHANGE("ContainerService", "StopContainer", stop_container_request, operation),
    CHANGE("ContainerService", "RestartContainer", restart_container_request, operation),
    CHANGE("ContainerService", "DeleteContainer", delete_container_request, operation),
    CHANGE("ContainerService", "MoveContainer", move_container_request, operation),
    READ("OperationService", "GetOperation", get_operation_request, operation, gw_on_get_operation),
    READ("OperationService", "ListOperations", list_operations_request, list_operations_response,
         gw_on_list_operations),
    METHOD("OperationService", "WaitOperation", wait_operation_request, operation, gw_on_wait, gw_on_wait_cancel),
    CHANGE("OperationService", "CancelOperation", cancel_operation_request, operation),
    &(const struct hp_rpc_method){
        .service = "harpoon.v1.EventService",
        .name = "Submit",
        .request = &harpoon__v1__submit_request__descriptor,
        .response = &harpoon__v1__submit_response__descriptor,
        .client_streaming = true,
        .server_streaming = true,
        .on_start = gw_on_submit_start,
        .on_message = gw_on_submit,
        .on_half_close = gw_on_submit_half_close,
        .on_cancel = gw_on_submit_cancel,
    },
    &(const struct hp_rpc_method){
        .service = "harpoon.v1.EventService",
        .name = "Watch",
        .request = &harpoon__v1__watch_request__descriptor,
        .response = &harpoon__v1__watch_response__descriptor,
        .server_streaming = true,
        .on_message = gw_on_watch,
        .on_writable = gw_on_watch_writable,
        .on_cancel = gw_on_watch_cancel,
    },
    READ("EventService", "ListEvents", list_events_request, list_events_response, gw_on_list_events),
    READ("HostService", "GetHost", get_host_request, host, gw_on_get_host),
    CHANGE("HostService", "GetHostLoad", get_host_load_request, host_load),
    READ("HostService", "ListHosts", list_hosts_request, list_hosts_response, gw_on_list_hosts),
    CHANGE("HostService", "CordonHost", cordon_host_request, operation),
    CHANGE("HostService", "UncordonHost", uncordon_host_request, operation),
    CHANGE("HostService", "DrainHost", drain_host_request, operation),
    CHANGE("HostService", "DeclareHostLost", declare_host_lost_request, operation),
    CHANGE("PlacementService", "ProposeMoves", propose_moves_request, propose_moves_response),
    CHANGE("PlacementService", "Reserve", reserve_request, operation),
    CHANGE("HostService", "AdoptContainer", adopt_container_request, operation),
    CHANGE("PlacementService", "Explain", explain_request, explain_response),
    NULL,
};
