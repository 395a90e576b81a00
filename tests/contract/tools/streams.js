// Streams from several users: every request has its answer, in order, and a bad one ends nothing.

import grpc from 'k6/net/grpc';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { connected, INFERENCE, requestFor } from './connecting.js';

const ended = new Counter('ended');
export const options = {
  vus: 3,
  iterations: 9,
  thresholds: { checks: ['rate==1'], ended: ['count==9'] },
};

export default function () {
  const stream = new grpc.Stream(connected(), `${INFERENCE}/ModelStreamInfer`);
  const ids = [];
  stream.on('data', (message) => ids.push(message.errorMessage ? 'error' : message.inferResponse.id));
  stream.on('error', (error) => console.error(JSON.stringify(error)));
  stream.on('end', () => {
    ended.add(1);
    check(ids, { 'in order': (found) => found.join() === '0,1,2,3,4,error,6,7,8,9' });
  });
  for (let place = 0; place < 10; place++) {
    stream.write(place === 5 ? { model_name: 'nobody' } : requestFor([1, 2, 3, 4], `${place}`));
  }
  stream.end();
}
