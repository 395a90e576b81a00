// Asks what standard input says by @grpc/grpc-js, on one connection; prints each message of an answer as
// it comes, and each call's end, as lines of JSON. See over_node.py.

'use strict';
const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');

const question = JSON.parse(fs.readFileSync(0, 'utf8'));
const asIs = (octets) => octets;

function print(event) {
  process.stdout.write(JSON.stringify(event) + '\n');
}

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of pairs) {
    metadata.add(name, typeof value === 'string' ? value : Buffer.from(value.octets, 'base64'));
  }
  return metadata;
}

function pairsOf(metadata) {
  const pairs = [];
  for (const name of Object.keys(metadata.getMap())) {
    for (const value of metadata.get(name)) {
      pairs.push([name, Buffer.isBuffer(value) ? { octets: value.toString('base64') } : value]);
    }
  }
  return pairs;
}

function ask(client, asked, index, onOver) {
  const bodies = asked.bodies.map((body) => Buffer.from(body, 'base64'));
  const options = { deadline: Date.now() + asked.timeoutSeconds * 1000 };
  const metadata = metadataOf(asked.metadata);
  const onBody = (body) => print({ index, body: body.toString('base64') });
  const onStatus = (status) => {
    print({ index, code: status.code, sentence: status.details, trailers: pairsOf(status.metadata) });
    onOver();
  };
  if (!asked.isStream) {
    const onAnswer = (error, body) => error || onBody(body);
    client.makeUnaryRequest(asked.path, asIs, asIs, bodies[0], metadata, options, onAnswer)
      .on('status', onStatus);
    return;
  }
  const call = client.makeBidiStreamRequest(asked.path, asIs, asIs, metadata, options);
  let heard = 0;
  function sendOn() {
    do {
      call.write(bodies.shift());
    } while (bodies.length && !asked.isInTurns);
    if (!bodies.length) call.end();
  }
  call.on('data', (body) => {
    onBody(body);
    heard += 1;
    if (heard === asked.cancelAfter) call.cancel();
    else if (bodies.length) sendOn();
  });
  // The status tells it all.
  call.on('error', () => {});
  call.on('status', onStatus);
  sendOn();
}

const isPacked = question.asks.some((asked) => asked.isPacked);
const client = new grpc.Client(question.address, grpc.credentials.createInsecure(), {
  'grpc.default_compression_algorithm': isPacked ? grpc.compressionAlgorithms.gzip : 0,
  'grpc.max_receive_message_length': 64 << 20,
});
let next = 0;
function askNext() {
  if (next < question.asks.length) {
    next += 1;
    ask(client, question.asks[next - 1], next - 1, askNext);
  }
}
for (let place = 0; place < question.atOnce; place += 1) askNext();
