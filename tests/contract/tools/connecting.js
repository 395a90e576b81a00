// One client for all scripts: over plaintext, with the contracts from PROTO or by reflection.

import grpc from 'k6/net/grpc';

export const INFERENCE = 'inference.GRPCInferenceService';

const client = new grpc.Client();
if (__ENV.PROTO) {
  client.load([__ENV.PROTO_ROOT], __ENV.PROTO);
}
let isConnected = false;

// Return the client, connected; to be called from a virtual user, each of which has its own.
export function connected() {
  if (!isConnected) {
    client.connect(__ENV.ADDRESS, { plaintext: true, reflect: !__ENV.PROTO, timeout: '30s' });
    isConnected = true;
  }
  return client;
}

// Return a request of the model "double" for one row.
export function requestFor(row, id) {
  return {
    model_name: __ENV.MODEL || 'double',
    id: id,
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], contents: { fp32_contents: row } }],
  };
}
