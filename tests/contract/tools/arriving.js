// Requests that arrive at a rate of their own, whether or not those before them are answered.

import grpc from 'k6/net/grpc';
import { check } from 'k6';
import { connected, INFERENCE, requestFor } from './connecting.js';

export const options = {
  scenarios: {
    arriving: {
      executor: 'constant-arrival-rate',
      rate: 100,
      duration: '2s',
      preAllocatedVUs: 8,
      maxVUs: 32,
    },
  },
  thresholds: { checks: ['rate==1'], iterations: ['count>0'] },
};

export default function () {
  const params = { discardResponseMessage: true };
  const answer = connected().invoke(`${INFERENCE}/ModelInfer`, requestFor([1, 2, 3, 4], ''), params);
  check(answer, { 'answered': (r) => r.status === grpc.StatusOK });
}
