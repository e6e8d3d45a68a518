from haproxy_py.datapath.context cimport Context, Entrance
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.passage cimport Passage
from haproxy_py.datapath.pool cimport Replica

cdef void write_request(Context context, Head head, Passage* passage, const char* data, Entrance entrance, bytes peer,
                        const char* request_id, int request_id_size, bytes client)
cdef bytes find_client(Head head, bytes peer, object trusted)
cdef void write_response(Context context, Head head, Replica replica, bint chunked, bint keeps_coding, bint closing,
                         bytes cookie_line)
cdef str scheme_of_client(Head head, Entrance entrance)
cdef void write_switch(Context context, Head head, Replica replica)
