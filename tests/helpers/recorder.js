// Audio worklet of the browser tests: posts each block of its two channels with its position.
class Recorder extends AudioWorkletProcessor {
  process([input]) {
    this.port.postMessage({ frame: currentFrame, channels: input.map((channel) => channel.slice()) });
    return true;
  }
}

registerProcessor("recorder", Recorder);
