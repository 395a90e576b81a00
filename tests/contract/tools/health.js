// Health of the server, of a model that is there and of one that is not.

import grpc from 'k6/net/grpc';
import { check } from 'k6';
import { connected } from './connecting.js';

export const options = { vus: 1, iterations: 1, thresholds: { checks: ['rate==1'] } };

export default function () {
  const health = (service) => connected().invoke('grpc.health.v1.Health/Check', { service });
  for (const service of ['', 'double']) {
    check(health(service), { 'serving': (r) => r.status === grpc.StatusOK && r.message.status === 'SERVING' });
  }
  check(health('nobody'), { 'unknown': (r) => r.status === grpc.StatusNotFound });
}
