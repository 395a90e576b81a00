// Unary calls from several users: answers, tensors both ways, status codes, metadata, a deadline.

import grpc from 'k6/net/grpc';
import encoding from 'k6/encoding';
import { check } from 'k6';
import { connected, INFERENCE, requestFor } from './connecting.js';

export const options = { vus: 4, iterations: 40, thresholds: { checks: ['rate==1'] } };

function floats(text) {
  return Array.from(new Float32Array(encoding.b64decode(text)));
}

export default function () {
  const call = (rpc, request, params) => connected().invoke(`${INFERENCE}/${rpc}`, request, params);

  check(call('ServerReady', {}), { 'ready': (r) => r.message.ready === true });
  check(call('ModelMetadata', { name: 'double' }), {
    'metadata': (r) => r.message.inputs[0].name === 'x' && r.message.platform === 'onnxruntime_onnx',
  });
  const metadata = { 'flyweight-key': 'someone', 'trace-bin': new Uint8Array([0, 255]) };
  check(call('ModelInfer', requestFor([1, 2, 3, 4], 'typed'), { metadata, tags: { kind: 'typed' } }), {
    'typed in, raw out': (r) =>
      r.status === grpc.StatusOK && r.message.id === 'typed' &&
      floats(r.message.rawOutputContents[0]).join() === '2,4,6,8',
  });
  const raw = {
    model_name: 'double',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4] }],
    raw_input_contents: [encoding.b64encode(new Float32Array([5, 6, 7, 8]).buffer)],
  };
  check(call('ModelInfer', raw), {
    'raw in, raw out': (r) => floats(r.message.rawOutputContents[0]).join() === '10,12,14,16',
  });
  check(call('ModelInfer', { model_name: 'nobody' }), {
    'unknown model': (r) => r.status === grpc.StatusNotFound && r.error.message.includes("'nobody'"),
  });
  check(call('ModelInfer', { model_name: 'double' }), {
    'no input': (r) => r.status === grpc.StatusInvalidArgument && r.error.message.includes("'x'"),
  });
  check(call('CudaSharedMemoryStatus', {}), { 'unsupported': (r) => r.status === grpc.StatusUnimplemented });
}
