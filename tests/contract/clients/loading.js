// Asks without a pause by @grpc/grpc-js, as the first line of standard input says, until that ends; prints a
// line for each call: empty, or how it failed. See loads.py.

'use strict';
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');

const asIs = (octets) => octets;
let isOver = false;

function askOn(client, question, body) {
  if (isOver) return;
  const options = { deadline: Date.now() + question.timeoutSeconds * 1000 };
  client.makeUnaryRequest(question.path, asIs, asIs, body, new grpc.Metadata(), options, (error) => {
    process.stdout.write((error ? `${error.code}: ${error.details}` : '') + '\n');
    askOn(client, question, body);
  });
}

const lines = readline.createInterface({ input: process.stdin });
lines.once('line', (line) => {
  const question = JSON.parse(line);
  const client = new grpc.Client(question.target, grpc.credentials.createInsecure(), {
    'grpc.service_config': question.serviceConfig,
  });
  const body = Buffer.from(question.body, 'hex');
  for (let caller = 0; caller < question.callers; caller += 1) askOn(client, question, body);
});
lines.once('close', () => {
  isOver = true;
});
