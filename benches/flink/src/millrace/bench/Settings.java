package millrace.bench;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** What all jobs have in common, tuned as Flink's own documentation advises. */
final class Settings {
    private Settings() {}

    /**
     * An environment in this process. {@code --backend heap|rocksdb}, {@code --parallelism N}, {@code --checkpoint
     * off|1s}, {@code --checkpoint-dir URI}, {@code --metrics-port P}.
     */
    static StreamExecutionEnvironment environment(Arguments arguments) {
        Configuration settings = new Configuration();
        String backend = arguments.text("backend");
        settings.setString("state.backend.type", backend.equals("heap") ? "hashmap" : backend);
        settings.setString("state.backend.rocksdb.memory.managed", "true");
        settings.setString("taskmanager.memory.managed.size", arguments.text("managed-memory", "2g"));
        settings.setString("taskmanager.memory.network.max", "256m");
        settings.setString("taskmanager.memory.network.min", "256m");
        settings.setString("pipeline.object-reuse", "true");
        String checkpoint = arguments.text("checkpoint");
        if (!checkpoint.equals("off")) {
            settings.setString("execution.checkpointing.interval", checkpoint);
            settings.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
            settings.setString("execution.checkpointing.storage", "filesystem");
            settings.setString("execution.checkpointing.dir", arguments.text("checkpoint-dir"));
            settings.setString("execution.checkpointing.incremental", "true");
        }
        settings.setString("metrics.reporter.prom.factory.class",
                "org.apache.flink.metrics.prometheus.PrometheusReporterFactory");
        settings.setString("metrics.reporter.prom.port", arguments.text("metrics-port"));
        int parallelism = (int) arguments.number("parallelism");
        StreamExecutionEnvironment env =
                StreamExecutionEnvironment.createLocalEnvironment(parallelism, settings);
        env.getConfig().enableObjectReuse();
        return env;
    }
}
